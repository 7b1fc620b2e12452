"""What networks need to learn: the loop, optimisers with their schedules, losses, checkpoints. Only here is torch imported."""
