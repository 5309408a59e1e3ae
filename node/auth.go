package node

import "context"

// An Authenticator tells who a token stands for. An error's text is told to the client.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (User, error)
}

// A User is who a session speaks for.
type User struct {
	ID    string
	Name  string
	Guest bool
}
