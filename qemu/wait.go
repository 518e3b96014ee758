package qemu

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Wait waits for the program's end, kills the guest and returns how it ended. It is called once.
func (m *Machine) Wait(ctx context.Context) (Result, error) {
	res, err := m.follow(ctx)
	m.Close()
	res.Accel = m.accel
	res.Output = m.output.Bytes()
	res.Console = m.console.text()
	if e, ok := err.(*Error); ok {
		if e.Kind != ErrOutput { // else the guest is not the cause
			e.Console = m.console.lastLines()
		}
		if p := m.console.panicLine(); p != "" && e.Kind != ErrTimeout && e.Kind != ErrOutput {
			e.Kind, e.Detail = ErrPanic, p
		}
	}
	return res, err
}

// follow handles the control line until there is an exit status or a reason to give up.
func (m *Machine) follow(ctx context.Context) (Result, error) {
	var res Result
	timer := time.NewTimer(m.spec.BootTimeout)
	defer timer.Stop()
	var ran time.Time
	lost := map[string]bool{} // streams of which the end will not be seen
	stage := "the kernel did not reach init"
	for {
		select {
		case <-ctx.Done():
			return res, fmt.Errorf("guest ended: %w", context.Cause(ctx))
		case <-timer.C:
			if ran.IsZero() {
				return res, &Error{Kind: ErrBoot, Detail: fmt.Sprintf("%s within %v", stage, m.spec.BootTimeout)}
			}
			return res, &Error{Kind: ErrTimeout, Detail: fmt.Sprintf("the program ran for %v", m.spec.Timeout)}
		case err := <-m.broken:
			return res, &Error{Kind: ErrOutput, Detail: err.Error()}
		case e, ok := <-m.events:
			if !ok {
				<-m.exited
				return res, m.died(ran.IsZero())
			}
			switch e.word {
			case "ready":
				stage = "init did not get to start the program"
			case "at":
				stage = e.rest + " was not done"
			case "run":
				ran = time.Now()
				res.Boot = ran.Sub(m.started)
				close(m.running)
				timer.Stop()
				if m.spec.Timeout > 0 {
					timer.Reset(m.spec.Timeout)
				}
			case "fail":
				return res, &Error{Kind: ErrBoot, Detail: e.rest}
			case "lost":
				lost[e.rest] = true
			case "exit":
				n, err := strconv.Atoi(e.rest)
				if err != nil || ran.IsZero() {
					return res, &Error{Kind: ErrDied, Detail: fmt.Sprintf("its init said %q", e.word+" "+e.rest)}
				}
				res.Status = n
				res.Run = time.Since(ran)
				return res, m.drained(ctx, lost)
			}
		}
	}
}

// drained waits until all that the program wrote is read, or QEMU is gone.
func (m *Machine) drained(ctx context.Context, lost map[string]bool) error {
	for name, ended := range m.ends {
		if lost[name] {
			continue
		}
		select {
		case <-ended:
		case <-m.exited:
			m.readers.Wait()
		case <-ctx.Done():
			return fmt.Errorf("guest ended: %w", context.Cause(ctx))
		}
	}
	select {
	case err := <-m.broken:
		return &Error{Kind: ErrOutput, Detail: err.Error()}
	default:
		return nil
	}
}

// died is the error of a QEMU that ended before there was an exit status.
func (m *Machine) died(early bool) error {
	detail := strings.TrimSpace(m.stderr.text())
	if detail == "" && m.waitErr != nil {
		detail = m.waitErr.Error()
	}
	if early {
		return &Error{Kind: ErrBoot, Detail: detail}
	}
	return &Error{Kind: ErrDied, Detail: detail}
}
