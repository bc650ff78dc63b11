"""What a run leaves: its folder, read and written, in parts or whole, here or elsewhere, and the machine it ran on."""
