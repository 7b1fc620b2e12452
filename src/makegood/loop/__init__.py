"""The closed loop: decide, wait, observe, review, retrain, promote; on history as if it were live, or beside a running service."""
