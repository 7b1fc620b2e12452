"""The page that a run leaves behind: read by a manager first, by an engineer on."""
