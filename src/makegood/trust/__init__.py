"""What lets people trust a decision: reasons, fairness tables, the card."""
