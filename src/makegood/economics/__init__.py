"""Money: what an action pays, which one to take under limits, what that is worth, and how sure that is."""
