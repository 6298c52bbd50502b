package main

import "slices"

// listed is every difference that stays, by scenario. docs/kafka.md shows it.
var listed = slices.Concat(listedOfAdmin, listedOfData, listedOfGroups)
