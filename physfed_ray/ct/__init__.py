"""CT physics: protocols, fan-beam projection, noise, filtered back projection."""
