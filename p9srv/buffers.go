package p9srv

import "sync"

// buffers are memory for data that is read from files, of the sizes that are read most. A buffer has at
// most twice the size that was asked for, so budgets mean what they say up to that.
type buffers struct{ small, large sync.Pool }

const (
	smallBuffer = 64 << 10
	largeBuffer = capMsize
)

// pool returns where buffers of size n come from, and their size; nil: just make them.
func (b *buffers) pool(n int) (*sync.Pool, int) {
	switch {
	case smallBuffer/2 < n && n <= smallBuffer:
		return &b.small, smallBuffer
	case largeBuffer/2 < n && n <= largeBuffer:
		return &b.large, largeBuffer
	}
	return nil, n
}

// get returns n bytes with anything in them.
func (b *buffers) get(n int) []byte {
	pool, size := b.pool(n)
	if pool != nil {
		if p, ok := pool.Get().(*[]byte); ok {
			return (*p)[:n]
		}
	}
	return make([]byte, n, size)
}

func (b *buffers) put(p []byte) {
	if pool, _ := b.pool(cap(p)); pool != nil {
		p = p[:cap(p)]
		pool.Put(&p)
	}
}
