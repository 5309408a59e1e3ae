package socket

import (
	"testing"
	"testing/synctest"
)

func TestWorkersRunAllAtOnceOfWhichAFewStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		for range 2 {
			const all = 3 * waitingWorkers
			goOn, begun := make(chan struct{}), make(chan struct{}, all)
			for range all {
				w.Go(func() {
					begun <- struct{}{}
					<-goOn
				})
			}
			synctest.Wait()
			if len(begun) != all {
				t.Errorf("%d of %d run, though each of them waits", len(begun), all)
			}
			close(goOn)
			synctest.Wait()
			if len(w.places) != waitingWorkers {
				t.Errorf("%d goroutines wait for more, not %d", len(w.places), waitingWorkers)
			}
		}
		w.close() // a goroutine that is left has the test fail
	})
}

func TestClosedWorkersHaveDoneAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		goOn, closed := make(chan struct{}), make(chan struct{})
		w.Go(func() { <-goOn })
		go func() {
			w.close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while a function runs")
		default:
		}
		close(goOn)
		<-closed
	})
}
