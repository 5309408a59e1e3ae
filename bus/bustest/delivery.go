package bustest

var deliveryPromises = []promise{
	{name: "whatOnePublishesAllHear", test: whatOnePublishesAllHear},
}

func whatOnePublishesAllHear(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe("room")
	_, atB := b.subscribe("room")
	id := a.publish("room", "hello")
	for _, r := range []*Recorder{atA, atB} {
		if m := r.WaitBody(c.t, "hello").Messages[0]; m.ID != id || !m.Prev.IsZero() {
			c.t.Errorf("delivered %v after %v; published %v, the first", m.ID, m.Prev, id)
		}
	}
}
