package node

import (
	"fmt"
	"strings"
	"testing"

	"parley/bus"
	"parley/node/wire"
)

func TestWhatOthersSeeGoesOverTheBusAndBack(t *testing.T) {
	for _, m := range []wire.Member{{ID: "a"}, {ID: "a", Name: "Ada"}, {ID: "a", Name: "Ada", Info: `{"a":"\u0000"}`}, {ID: "a", Info: `{}`}} {
		if got := wireMember(bus.Member{ID: m.ID, Name: seen(m)}); got != m {
			t.Errorf("%+v comes back as %+v", m, got)
		}
	}
}

// A full room whose members all have the longest info makes no frame that a client's queue could not take.
func TestAListHasSoMuchOfInfos(t *testing.T) {
	long := wire.Info(`{"a":"` + strings.Repeat("x", wire.MaxInfo-8) + `"}`)
	var roster bus.Roster
	for i := range bus.RosterMax {
		roster.Members = append(roster.Members, bus.Member{ID: fmt.Sprint(i), Name: seen(wire.Member{Name: "Ada", Info: long})})
	}
	list := wireMembers(roster)
	frame := wire.Members{Room: "r", Members: list}.Append(nil)
	if list[0].Info != long || list[199].Info != "" || list[199].Name != "Ada" || len(frame) > listedInfo+200*40 {
		t.Errorf("the list has %d bytes, the last is %+v", len(frame), list[199])
	}
}
