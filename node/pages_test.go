package node

import (
	"context"
	"testing"
	"testing/synctest"

	"parley/bus"
)

// A read of the log is for all who need the same: it does not end with who has begun it.
func TestAReadOfTheLogGoesOnWithoutWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &room{srv: &Server{ctx: t.Context()}}
		answers := make(chan struct{})
		read := func(ctx context.Context) (bus.Page, error) {
			select {
			case <-answers:
				return bus.Page{Complete: true}, nil
			case <-ctx.Done():
				return bus.Page{}, ctx.Err()
			}
		}
		ask := func(ctx context.Context) <-chan error {
			said := make(chan error, 1)
			go func() {
				_, err := r.share(ctx, extent{newest: 50}, read)
				said <- err
			}()
			synctest.Wait()
			return said
		}
		gone, leave := context.WithCancel(t.Context())
		first := ask(gone)
		second := ask(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		third := ask(impatient)
		leave()
		giveUp()
		if err := <-third; err == nil {
			t.Error("who waits for another's read cannot give up")
		}
		synctest.Wait()
		close(answers)
		if err := <-second; err != nil {
			t.Errorf("who waits gets %v, as the first had gone", err)
		}
		<-first
		if err := <-ask(t.Context()); err != nil {
			t.Errorf("then: %v", err)
		}
	})
}
