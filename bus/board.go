package bus

import (
	"context"
	"time"
)

// A Board is what the nodes of a cluster know in common beside what is said in rooms.
type Board interface {
	// Rooms lists the rooms that have members, over all handles, in no order.
	Rooms(ctx context.Context) ([]string, error)

	// Post has every handle know a text until its end. Posting it again may put the end off. Where it is lost, a handle that has posted it,
	// or read it, posts it again as it reads.
	Post(ctx context.Context, text string, until time.Time) error

	// Posted reads all texts whose end has not come, in no order, and which version of the board that is. It reads none, and is quick,
	// if the board still is of the version that the caller knows; the empty version is none.
	Posted(ctx context.Context, known string) (texts []string, version string, err error)

	// Draw takes up to n tokens out of a bucket that all handles share: rate flow into it in a second, and burst fit in.
	Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (drawn int, err error)

	// Count says that a holder has n of something, for as long as life, and gives how many all holders have. n of 0 is none.
	Count(ctx context.Context, of, holder string, n int, life time.Duration) (total int, err error)
}
