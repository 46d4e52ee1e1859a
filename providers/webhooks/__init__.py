"""What vendors report to us, one module a vendor."""
