"""The commands of `sightline`, one file a family; a command asks the service or the database and shows what it said."""
