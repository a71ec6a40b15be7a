"""A real cluster of kind where no registry can be reached: the node image, kind, helm, kubectl and the guards."""
