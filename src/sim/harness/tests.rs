//! Planning, playing, interrupting and adding up, with players that a test makes.
