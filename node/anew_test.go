package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
)

// restored is a bus whose board does not show by its version that it is another, as after a restore from a backup.
type restored struct {
	bus.Bus
	texts *atomic.Pointer[[]string]
}

func (b restored) Posted(_ context.Context, known string) ([]string, string, error) {
	const version = "1"
	if known == version {
		return nil, version, nil
	}
	return *b.texts.Load(), version, nil
}

// Whatever a board's version says, within a minute or so a node knows what stands on it, and forgets what does not any more.
func TestABoardIsReadAnewWhateverItsVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var texts atomic.Pointer[[]string]
		post := func(all ...string) { texts.Store(&all) }
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{cfg: Config{Bus: restored{texts: &texts}}.withDefaults(), ctx: ctx}
		s.board.begin()
		revoked := func(user string) bool {
			synctest.Wait()
			return s.board.revoked.Load().hits(&Grant{User: User{ID: user}, Issued: time.UnixMilli(500)})
		}
		post(noticePrefix + `{"revoke":true,"user":"ada","before":1000}`)
		s.wg.Go(s.watchBoard)
		if !revoked("ada") || revoked("bob") {
			t.Error("at first not just ada is revoked")
		}
		post(noticePrefix + `{"revoke":true,"user":"bob","before":1000}`)
		time.Sleep(boardAnew + 2*boardTick)
		if revoked("ada") || !revoked("bob") {
			t.Error("later not just bob is revoked")
		}
		cancel()
		s.wg.Wait()
	})
}
