// Package contract tests what clients of the FUSE mount can rely on: a real server process, a real
// mount, and clients that are processes of their own, so that they can be killed.
//
// It knows paths, lines and what a database holds, and nothing of the server's insides: what it says is
// the contract. A client process is this test binary run again, which does on its stdin's command what
// a client might do, see client_test.go; the tests drive it, and are a client themselves.
//
// The tests' own process never touches a mapping in user mode, since a fault that waits for a pin would
// hold up the goroutine that is to acknowledge it: it has the kernel copy from the mapping (mapping.read).
package contract
