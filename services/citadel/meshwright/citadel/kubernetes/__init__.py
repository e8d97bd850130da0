"""Identity in Kubernetes: which part a service account is, and which identity a pod has."""
