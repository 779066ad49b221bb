"""What Optuna does for the training: it proposes what to try next, and draws what was tried."""
