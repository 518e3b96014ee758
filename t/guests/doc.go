// Package guests tests snapshot isolation for clients in guests: base watches over native 9P and over
// QEMU's virtfs, several guests and a client on the host at once, and guests that misbehave.
//
// It owns the tests, the database that grows meanwhile (writer_test.go), guests that take shell
// commands (guest_test.go) and the program that runs in them (checker).
package guests
