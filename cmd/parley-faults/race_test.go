//go:build race

package main

// raceDetector has nodes be built with the race detector, as the test is.
const raceDetector = true
