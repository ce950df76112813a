"""Reports that were issued, and who signed them off."""
