package main

// listed is every difference that stays. docs/kafka.md shows it.
var listed = []difference{
	{step: "*", path: "*ErrorMessage", texts: true, why: "The texts are Flotilla's own and say what to do; that there is one, or none, is compared."},
}
