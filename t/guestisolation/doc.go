// Package guestisolation tests snapshot isolation for clients in guests: base watches over native 9P and over
// QEMU's virtfs, several guests and a client on the host at once, and guests that misbehave.
//
// It owns the tests, the database that grows meanwhile (writer_test.go), guests that take shell
// commands (guest_test.go), the programs that run in them (checker; probes, for what docs/guests.md says was
// measured), and that what docs/guests.md shows is run.
package guestisolation
