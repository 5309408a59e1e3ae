import type { Shared } from "../parley.js";

/** Parley's option "shared". */
export const shared: Shared;
