"""The Helm chart and the image definitions."""
