// Package guestmount tests wcfs from inside guests with unmodified kernels: natively over 9P, and through
// QEMU's virtfs on the host's FUSE mount.
//
// It owns the tests, what they run in a guest (guestbin), and what both tell each other (plan). One
// boot a kernel runs all checks.
package guestmount
