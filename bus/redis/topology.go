package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// slotCount is how many hash slots a Cluster has.
const slotCount = 16384

// slotOf is the slot of a key, or of a hash tag's content: CRC16 of the polynomial 0x1021
// (redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec).
func slotOf(key string) int {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			key = key[i+1 : i+1+j]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slotCount
}

// tagOf is a hash tag of a slot.
func tagOf(slot int) string {
	for n := 0; ; n++ {
		if tag := "{" + strconv.Itoa(n) + "}"; slotOf(tag) == slot {
			return tag
		}
	}
}

// A view is what a node of a Cluster says of who has which slot.
type view struct {
	epoch int64 // of the latest change that it knows of
	slots []redis.ClusterSlot
	err   error
}

var (
	errNoCluster = errors.New("it is no node of a Redis Cluster: say redis:// or rediss://")
	errNoSlots   = errors.New("it has no slots, and knows nobody who does")
)

// lookAround asks all nodes that are known, and goes by the one of more than half of them, or of those that answer in time, that
// knows of the latest change.
func (c *Cluster) lookAround(ctx context.Context) ([]redis.ClusterSlot, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	c.mu.Lock()
	views := make(chan view, len(c.nodes))
	count := len(c.nodes)
	for addr, node := range c.nodes {
		go func() { views <- see(ctx, addr, node) }() // ends with ctx
	}
	c.mu.Unlock()
	var best view
	var errs []error
	answers := 0
	for range count {
		v := <-views
		if v.err != nil {
			errs = append(errs, v.err)
			continue
		}
		if answers++; best.slots == nil || v.epoch > best.epoch {
			best = v
		}
		if answers > count/2 {
			break
		}
	}
	if answers == 0 {
		return nil, fmt.Errorf("no node tells who has which slots: %w", worst(errs))
	}
	return best.slots, nil
}

func see(ctx context.Context, addr string, node *redis.Client) (v view) {
	p := node.Pipeline()
	slots, info := p.ClusterSlots(ctx), p.ClusterInfo(ctx)
	if _, err := p.Exec(ctx); err != nil {
		if isReply(err) && strings.Contains(err.Error(), "cluster support disabled") {
			err = misconfigured{errNoCluster}
		}
		return view{err: err}
	}
	v.slots = slots.Val()
	v.epoch, _ = strconv.ParseInt(lineOf(info.Val(), "cluster_current_epoch:"), 10, 64)
	host, _, _ := net.SplitHostPort(addr)
	for _, s := range v.slots {
		for i, n := range s.Nodes {
			if strings.HasPrefix(n.Addr, ":") { // it does not know its own address
				s.Nodes[i].Addr = net.JoinHostPort(host, n.Addr[1:])
			}
		}
	}
	if len(v.slots) == 0 {
		v.err = errNoSlots
	}
	return v
}
