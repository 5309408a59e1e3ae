// Parley-attack attacks a node as hostile clients could, and prints what that did to the node and to a bystander, as Markdown:
//
//	parley-attack --parley PATH
//
// It starts the node itself, on loopback, and ends it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/node/wire"
)

func main() {
	parley := flag.String("parley", "parley", "the `program` to attack")
	only := flag.String("only", "", "only attacks with this in their name")
	length := flag.Duration("for", 5*time.Second, "how long an attack lasts")
	flag.Parse()
	fmt.Println("| attack | the attacker hears | bystander's p99, quiet | during | memory before | peak | after |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- |")
	for _, a := range attacks {
		if !strings.Contains(a.name, *only) {
			continue
		}
		if err := a.run(*parley, *length); err != nil {
			fmt.Fprintf(os.Stderr, "parley-attack: %s: %v\n", a.name, err)
			os.Exit(1)
		}
	}
	if err := attackAccess(*parley, *only, *length/5); err != nil {
		fmt.Fprintf(os.Stderr, "parley-attack: %v\n", err)
		os.Exit(1)
	}
}

// heard is what attackers hear.
type heard struct {
	mu    sync.Mutex
	words map[string]bool // guarded by mu
}

func (h *heard) hear(word string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.words == nil {
		h.words = make(map[string]bool)
	}
	h.words[word] = true
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var words []string
	for w := range h.words {
		words = append(words, w)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

func (a attack) run(parley string, length time.Duration) error {
	n, err := start(parley, a.secure)
	if err != nil {
		return err
	}
	defer n.stop()
	by, err := n.dial()
	if err != nil {
		return err
	}
	quiet, err := pace(by, time.Second)
	if err != nil {
		return err
	}
	before, peak := n.memory(), 0

	var attackers sync.WaitGroup
	var h heard
	end := time.Now().Add(length)
	for range a.conns {
		attackers.Go(func() {
			for a.conduct(n, end, h.hear); a.again && time.Now().Before(end); {
				a.conduct(n, end, h.hear)
			}
		})
	}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, n.memory())
			}
		}
	}()
	during, err := pace(by, length)
	attackers.Wait()
	close(done)
	<-watched
	if err != nil {
		return fmt.Errorf("the bystander: %w", err)
	}
	time.Sleep(time.Second)
	fmt.Printf("| %s | %s | %.1f ms | %.1f ms | %d MB | %d MB | %d MB |\n", a.name, &h, ms(quiet), ms(during), before>>20, peak>>20, n.memory()>>20)
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// pace says ping for a while, now and then, and gives the time within which 99 % are answered.
func pace(c *client, d time.Duration) (time.Duration, error) {
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		began := time.Now()
		c.nc.SetDeadline(began.Add(30 * time.Second))
		if _, err := c.nc.Write(frame(wire.OpText, `{"op":"ping"}`, true)); err != nil {
			return 0, err
		}
		for {
			op, payload, err := c.next()
			if err != nil {
				return 0, err
			}
			if op == wire.OpText && bytes.Contains(payload, []byte(`"ok"`)) {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
