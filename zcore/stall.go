package zcore

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// A client that does not acknowledge a pin makes readers of that block wait, for a PinTimeout. It is ended then, but
// its user can start another. So there is a budget of such time, for each user of the FUSE mount and for each guest
// with a name. Past it new watches of that user or guest are refused for a while, and those it has must be acknowledged
// at once: they cannot just be dropped, for a proper client must not see data that it did not ask for.
//
// root and the user of the server have no budget: they can stop the server anyway. A guest has a larger one: only itself
// waits for it.
const (
	stallsOfGuest = 4  // faults of a guest; of a user it is half a fault, that is the first
	stallRefused  = 20 // for so many PinTimeouts watches are refused, and after so many a fault is forgotten
	maxStallers   = 4096

	// stallPatience is how long a pin may take past the budget: readers hardly notice, a client that lives answers.
	stallPatience = 50 * time.Millisecond
)

// stalls are the accounts of those who made others wait.
type stalls struct {
	mu       sync.Mutex // a leaf
	accounts map[string]*stallAccount
}

type stallAccount struct {
	spent time.Duration
	last  time.Time // of the last fault
	until time.Time // watches are refused till then
}

// staller names whose budget a client of a link spends, "" if nobody's.
func staller(dom *Domain, proc Process) string {
	if !dom.local {
		if dom.anonymous {
			return "" // nothing says who comes again
		}
		return "guest " + dom.Name()
	}
	d, ok := proc.(Described)
	if !ok {
		return ""
	}
	uid, _ := d.Describe()
	if uid == 0 || int64(uid) == int64(os.Geteuid()) {
		return ""
	}
	return fmt.Sprintf("uid %d", uid)
}

// charge notes that others waited for a faulty client of the link.
func (l *Link) charge(waited time.Duration) {
	if l.staller == "" {
		return
	}
	s, limit, now := &l.c.stalls, l.c.opts.PinTimeout, time.Now()
	budget := limit / 2
	if !l.dom.local {
		budget = stallsOfGuest * limit
	}
	s.mu.Lock()
	for who, a := range s.accounts {
		if now.Sub(a.last) > stallRefused*limit {
			delete(s.accounts, who)
		}
	}
	a := s.accounts[l.staller]
	if a == nil {
		if len(s.accounts) >= maxStallers {
			s.mu.Unlock()
			return
		}
		a = &stallAccount{}
		s.accounts[l.staller] = a
	}
	a.spent, a.last = a.spent+waited, now
	over, until := a.spent >= budget, a.until
	if over {
		a.until = now.Add(stallRefused * limit)
	}
	spent := a.spent
	s.mu.Unlock()
	if over && now.After(until) {
		l.c.log.Error("clients made others wait too long: their watches are refused for a while", "who", l.staller,
			"waited", spent.Round(time.Millisecond), "for", stallRefused*limit)
	}
}

// refusedFor tells for how long the watches of somebody are refused, 0: they are not.
func (s *stalls) refusedFor(who string) time.Duration {
	if who == "" {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[who]; a != nil {
		return max(0, time.Until(a.until))
	}
	return 0
}

// refused lists those whose watches are refused.
func (s *stalls) refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for who, a := range s.accounts {
		if d := time.Until(a.until); d > 0 {
			list = append(list, fmt.Sprintf("%s for %s", who, d.Round(time.Second)))
		}
	}
	slices.Sort(list)
	return list
}

// patience is how long the client may take for a pin, and to end once it is faulty.
func (l *Link) patience() time.Duration {
	limit := l.c.opts.PinTimeout
	if l.c.stalls.refusedFor(l.staller) > 0 {
		return min(limit, stallPatience)
	}
	return limit
}
