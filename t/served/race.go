//go:build race

package served

// Race tells whether the tests have the race detector.
const Race = true
