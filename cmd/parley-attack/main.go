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
	fmt.Println("| attack | the attacker hears | bystander's p99, quiet | while another node is attacked | while its own is | memory before | peak | after |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- |")
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

// A row is what came of an attack.
type row struct {
	quiet, elsewhere, here time.Duration // a bystander's p99
	before, peak, after    int           // bytes of the node
}

func (r row) print(name, heard string) {
	fmt.Printf("| %s | %s | %.1f ms | %.1f ms | %.1f ms | %d MB | %d MB | %d MB |\n",
		name, heard, ms(r.quiet), ms(r.elsewhere), ms(r.here), r.before>>20, r.peak>>20, r.after>>20)
}

func (a attack) run(parley string, length time.Duration) error {
	n, err := start(parley, a.secure)
	if err != nil {
		return err
	}
	defer n.stop()
	other, err := start(parley, a.secure)
	if err != nil {
		return err
	}
	defer other.stop()
	by, err := n.dial()
	if err != nil {
		return err
	}
	var h heard
	r, err := stages(n, other, by, time.Second, length, func(n *node, length time.Duration) {
		var attackers sync.WaitGroup
		end := time.Now().Add(length)
		for range a.conns {
			attackers.Go(func() {
				for a.conduct(n, end, h.hear); a.again && time.Now().Before(end); {
					a.conduct(n, end, h.hear)
				}
			})
		}
		attackers.Wait()
	})
	if err == nil {
		r.print(a.name, h.String())
	}
	return err
}

// stages measures a bystander on a node while nothing happens, while another node is attacked in the same way, which takes the same part
// of the machine, and while his own is. It closes his connection.
func stages(n, other *node, by *client, quiet, length time.Duration, attack func(*node, time.Duration)) (r row, err error) {
	defer by.nc.Close()
	if r.quiet, err = pace(by, quiet); err != nil {
		return r, err
	}
	if r.elsewhere, _, err = during(other, by, length, attack); err != nil {
		return r, err
	}
	r.before = n.memory()
	if r.here, r.peak, err = during(n, by, length, attack); err != nil {
		return r, err
	}
	time.Sleep(length / 5)
	r.after = n.memory()
	return r, nil
}

// during measures a bystander, and the memory of a node, while that is attacked.
func during(n *node, by *client, length time.Duration, attack func(*node, time.Duration)) (p99 time.Duration, peak int, err error) {
	var attacked sync.WaitGroup
	over := make(chan struct{})
	attacked.Go(func() {
		defer close(over)
		attack(n, length)
	})
	attacked.Go(func() {
		for {
			peak = max(peak, n.memory())
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	p99, err = pace(by, length)
	attacked.Wait()
	return p99, peak, err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// between is how long a bystander waits between his pings: what he says stays below what a client may say for ever.
const between = 10 * time.Millisecond

// pace has a bystander say ping for a while, and gives the time within which 99 % are answered.
func pace(by *client, d time.Duration) (time.Duration, error) {
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(between) {
		began := time.Now()
		by.nc.SetDeadline(began.Add(30 * time.Second))
		if _, err := by.nc.Write(frame(wire.OpText, `{"op":"ping"}`, true)); err != nil {
			return 0, fmt.Errorf("the bystander: %w", err)
		}
		for answered := false; !answered; {
			op, payload, err := by.next()
			switch {
			case err != nil:
				return 0, fmt.Errorf("the bystander: %w", err)
			case op != wire.OpText:
			case bytes.Contains(payload, []byte(`"op":"error"`)):
				return 0, fmt.Errorf("the bystander is told %s", payload)
			default:
				answered = bytes.Contains(payload, []byte(`"ok"`))
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
