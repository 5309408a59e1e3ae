package node

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestAddressesAreBoundedAndForgotten(t *testing.T) {
	as := addresses{limits: &Limits{AddressRequests: 1, AddressConnections: 1}}
	as.arrive("192.0.2.1:1") // stays
	requests := func(a *address) *rate.Limiter { return a.requests }
	for i := range 3 * maxIdleAddresses {
		as.spend(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff), requests)
	}
	if len(as.known) != maxIdleAddresses+1 || as.idle != maxIdleAddresses {
		t.Errorf("%d are known, %d idle", len(as.known), as.idle)
	}
	if limit, _ := as.arrive("[::ffff:192.0.2.1]:2"); limit != limitAddressConnections {
		t.Error("who is connected was forgotten")
	}
	as.forget(time.Now().Add(2 * addressLife))
	if len(as.known) != 1 || as.idle != 0 {
		t.Errorf("%d are known, %d idle", len(as.known), as.idle)
	}
	as.depart("192.0.2.1:1")
	as.forget(time.Now().Add(2 * addressLife))
	if len(as.known) != 0 || as.idle != 0 {
		t.Errorf("%d are known, %d idle", len(as.known), as.idle)
	}
}

// Who comes over a socket that has no address, such as one of the file system, shares no limits with others who do.
func TestWithoutAnAddressThereAreNoLimitsOfOne(t *testing.T) {
	as := addresses{limits: &Limits{AddressAttempts: 1, AddressRequests: 1, AddressConnections: 1}}
	for range 100 {
		if limit, wait := as.arrive("@"); limit != "" || wait > 0 {
			t.Fatalf("a connection is refused for %s", limit)
		}
		if wait := as.spend("@", func(a *address) *rate.Limiter { return a.requests }); wait > 0 {
			t.Fatal("a request is refused")
		}
	}
	for range 100 {
		as.depart("@")
	}
	if len(as.known) != 0 || as.idle != 0 {
		t.Errorf("%d are known, %d idle", len(as.known), as.idle)
	}
}
