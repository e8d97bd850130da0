"""`meshwright-verify`: whether an installation on a cluster does its work, asked from a pod beside it (`helm test`)."""
