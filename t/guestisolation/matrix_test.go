//go:build soak

package guestisolation

import "testing"

// Both kernels and both ways to serve them, for long.
func TestMatrix(t *testing.T) {
	for _, k := range []string{"6.1", "6.12"} {
		for _, how := range []transport{tcp, virtfs} {
			t.Run(k+"-"+string(how), func(t *testing.T) {
				isolation(t, 90,
					spec{name: "first", kernel: k, how: how, cpus: 1},
					spec{name: "second", kernel: k, how: how, cpus: 1})
			})
		}
	}
}
