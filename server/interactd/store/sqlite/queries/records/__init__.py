"""Records of an archive, held to what every reader of their rows relies on."""
