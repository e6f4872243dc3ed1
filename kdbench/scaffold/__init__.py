"""New plugin packages: from a name to a folder that installs, passes its tests and can be published."""
