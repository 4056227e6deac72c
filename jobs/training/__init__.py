"""What training is made of: the input of nets, their parts, their workers."""
