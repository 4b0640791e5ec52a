"""Training on answers that the model itself gives: roll-outs, their scores, and the losses of PPO."""
