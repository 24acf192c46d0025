"""Reports: forecasts, history, open failures, and the audit log."""
