"""Seals and sign-offs in a PDF: keys, signing, reading them back, verification."""
