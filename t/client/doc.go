// Package client tests the clients of wcfs, in Go, C and Python, against a real server on a real mount.
//
// Each client is a process of its own that takes commands and tells checksums of what its view shows, the
// same for all three languages (prog/testclient.c says which); the test compares them with what the generator
// of the database says is as of that revision. It owns those processes, the server, its mount, and what it builds.
package client
