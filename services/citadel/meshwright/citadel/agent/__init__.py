"""The node agent: finds out which workload a caller is, and gives it certificates by Workload API and SDS."""
