package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/node/api"
	"parley/node/wire"
)

// AdminCmd calls a cluster as an application does.
type AdminCmd struct {
	URL    string
	Key    string
	From   string
	Before time.Duration
	Limit  int

	Timeout time.Duration
}

// newAdmin makes "parley admin", whose first argument says what to do.
func newAdmin() *cobra.Command {
	c := new(AdminCmd)
	command := cli.Command("admin", "Do as an application does, with an API key: "+strings.Join(adminNames(), ", ")+".", c)
	command.Use = "admin WHAT [ARG...]"
	command.Long = "Do as an application does, with an API key:\n\n" + adminHelp()
	command.Args = func(command *cobra.Command, args []string) error {
		if version, _ := command.Flags().GetBool("version"); version {
			return nil
		}
		_, err := deedOf(args)
		return err
	}
	return command
}

// An adminDeed is what one can do with "parley admin".
type adminDeed struct {
	name, args, says string
	least            int
	do               func(*AdminCmd, *cli.Env, *api.Client, []string) error
}

func adminDeeds() []adminDeed {
	return []adminDeed{
		{"rooms", "", "list the rooms that somebody is in", 0, (*AdminCmd).rooms},
		{"members", "ROOM", "list who is in a room", 1, (*AdminCmd).members},
		{"history", "ROOM", "print a room's newest messages, a line of JSON each", 1, (*AdminCmd).history},
		{"publish", "ROOM TEXT", "say something in a room", 2, (*AdminCmd).publish},
		{"broadcast", "TEXT ROOM...", "say the same in many rooms", 2, (*AdminCmd).broadcast},
		{"disconnect", "USER", "end all connections of a user, who may come back", 1, (*AdminCmd).disconnect},
		{"revoke", "USER", "end all sessions of a user, and refuse the tokens that there are; * for everyone", 1, (*AdminCmd).revoke},
		{"revoke-token", "JTI", "refuse one token", 1, (*AdminCmd).revokeToken},
	}
}

// deedOf is what the arguments say.
func deedOf(args []string) (adminDeed, error) {
	for _, d := range adminDeeds() {
		switch {
		case len(args) == 0 || args[0] != d.name:
		case len(args) <= d.least || len(args) > d.least+1 && d.name != "broadcast":
			return d, fmt.Errorf("it is: parley admin %s %s", d.name, d.args)
		default:
			return d, nil
		}
	}
	return adminDeed{}, fmt.Errorf("say what to do: %s", strings.Join(adminNames(), ", "))
}

func adminNames() (names []string) {
	for _, d := range adminDeeds() {
		names = append(names, d.name)
	}
	return names
}

func adminHelp() string {
	var b strings.Builder
	for _, d := range adminDeeds() {
		fmt.Fprintf(&b, "  %-26s %s\n", strings.TrimSpace(d.name+" "+d.args), d.says)
	}
	return strings.TrimRight(b.String(), "\n")
}

func (c *AdminCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.URL, "url", "http://127.0.0.1:8765", "`URL` Where the cluster is.")
	f.StringVar(&c.Key, "key", "", "`KEY` The API key. From the environment only, or a file that $PARLEY_API_KEY_FILE names.")
	f.StringVar(&c.From, "from", "", "`USER` For whom to speak. For the key's name, by default.")
	f.DurationVar(&c.Before, "before", 0, "Revoke only tokens issued so long ago, or longer.")
	f.IntVar(&c.Limit, "limit", 50, "Messages to print.")
	f.DurationVar(&c.Timeout, "timeout", 30*time.Second, "How long to try again where that may help, as while no node answers.")
	cli.SetSecret(f, "key")
	for flag, variable := range map[string]string{"url": "URL", "key": "KEY", "from": "FROM", "before": "BEFORE", "limit": "LIMIT", "timeout": "TIMEOUT"} {
		cli.SetVariable(f, flag, "PARLEY_API_"+variable)
	}
}

// Validate refuses what calls nobody.
func (c *AdminCmd) Validate() error {
	switch {
	case c.Key == "":
		return errors.New("an API key is needed: $PARLEY_API_KEY or $PARLEY_API_KEY_FILE")
	case c.Before < 0:
		return errors.New("--before must be at least 0s")
	case c.Limit < 1 || c.Limit > wire.MaxPage:
		return fmt.Errorf("--limit must be from 1 to %d", wire.MaxPage)
	case c.Timeout <= 0:
		return errors.New("--timeout must be more than 0s")
	}
	_, err := api.New(c.URL, c.Key, api.Options{})
	return err
}

// Run implements "parley admin".
func (c *AdminCmd) Run(env *cli.Env) error {
	client, err := api.New(c.URL, c.Key, api.Options{})
	if err != nil {
		return err
	}
	d, err := deedOf(env.Args)
	if err != nil {
		return err
	}
	bounded := *env
	var cancel context.CancelFunc
	bounded.Ctx, cancel = context.WithTimeout(env.Ctx, c.Timeout)
	defer cancel()
	return d.do(c, &bounded, client, env.Args[1:])
}

func (c *AdminCmd) rooms(env *cli.Env, a *api.Client, _ []string) error {
	rooms, err := a.Rooms(env.Ctx)
	for _, room := range rooms {
		fmt.Fprintln(env.Out, wire.Harmless(room))
	}
	return err
}

func (c *AdminCmd) members(env *cli.Env, a *api.Client, args []string) error {
	list, count, err := a.Members(env.Ctx, args[0])
	if err != nil {
		return err
	}
	for _, m := range list {
		fmt.Fprintf(env.Out, "%s\t%s\n", wire.Harmless(m.ID), wire.Harmless(m.Name))
	}
	if count > len(list) {
		fmt.Fprintf(env.Err, "and %d more\n", count-len(list))
	}
	return nil
}

func (c *AdminCmd) history(env *cli.Env, a *api.Client, args []string) error {
	list, _, err := a.History(env.Ctx, args[0], nil, c.Limit)
	if err != nil {
		return err
	}
	out := json.NewEncoder(env.Out)
	for _, m := range list {
		if err := out.Encode(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *AdminCmd) draft(text string) api.Draft {
	d := api.Draft{Text: text}
	if c.From != "" {
		d.From = &wire.Member{ID: c.From, Name: c.From}
	}
	return d
}

func (c *AdminCmd) publish(env *cli.Env, a *api.Client, args []string) error {
	id, err := a.Publish(env.Ctx, args[0], c.draft(args[1]))
	if err == nil {
		fmt.Fprintln(env.Out, id)
	}
	return err
}

func (c *AdminCmd) broadcast(env *cli.Env, a *api.Client, args []string) error {
	list, err := a.Broadcast(env.Ctx, args[1:], c.draft(args[0]))
	failed := 0
	for _, o := range list {
		if o.Err != nil {
			failed++
			fmt.Fprintf(env.Err, "%s: %v\n", wire.Harmless(o.Room), o.Err)
			continue
		}
		fmt.Fprintf(env.Out, "%s\t%s\n", o.ID, wire.Harmless(o.Room))
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("it could not be said in %d rooms", failed)
	}
	return err
}

func (c *AdminCmd) disconnect(env *cli.Env, a *api.Client, args []string) error {
	return a.Disconnect(env.Ctx, args[0])
}

func (c *AdminCmd) revoke(env *cli.Env, a *api.Client, args []string) error {
	user := args[0]
	switch user {
	case "":
		return errors.New("whom to revoke is empty: * is everyone") // and not what a variable happens to lack
	case "*":
		user = ""
	}
	var before time.Time
	if c.Before > 0 {
		before = time.Now().Add(-c.Before)
	}
	return a.Revoke(env.Ctx, user, before)
}

func (c *AdminCmd) revokeToken(env *cli.Env, a *api.Client, args []string) error {
	return a.RevokeToken(env.Ctx, args[0])
}
