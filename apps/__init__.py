"""The reference application: what an application on the platform looks like. Replace it by your own."""
