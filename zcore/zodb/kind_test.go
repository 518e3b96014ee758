package zodb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Kind
	}{
		{nil, KindAnswer},
		{errors.New("x"), Unknown},
		{io.ErrUnexpectedEOF, Unknown},
		{ErrNoObject, KindAnswer},
		{fmt.Errorf("load: %w", &LoadError{Err: ErrDeleted}), KindAnswer},
		{fmt.Errorf("load: %w", &DataError{Err: io.EOF}), KindAnswer},
		{&DataError{Err: Outage(io.EOF)}, KindAnswer}, // the outermost counts
		{fmt.Errorf("load: %w", Outage(io.EOF)), KindOutage},
		{Answer(Outage(io.EOF)), KindAnswer},
		{Outage(ErrNoData), KindOutage},
		{OtherDatabase(fmt.Errorf("x: %w", io.EOF)), KindOtherDatabase},
		{fmt.Errorf("%w: %w", errors.New("x"), Outage(io.EOF)), KindOutage},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), KindOutage},
		{Answer(context.DeadlineExceeded), KindAnswer},
	} {
		if got := KindOf(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
	}
	if !errors.Is(fmt.Errorf("x: %w", Outage(io.EOF)), io.EOF) || !IsAbsent(&LoadError{Err: ErrNoData}) || IsAbsent(ErrNoExtent) {
		t.Error("a mark hides what it marks, or sentinels are taken for each other")
	}
	for _, f := range []func(error) error{Answer, Outage, OtherDatabase} {
		if f(nil) != nil {
			t.Error("no error became one")
		}
	}
}
