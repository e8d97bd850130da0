"""Service Mesh Performance (SMP): its messages read strictly, older shapes of them too, and written."""
