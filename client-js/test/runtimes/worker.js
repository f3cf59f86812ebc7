// Runs in a Web Worker.

import { connect } from "../../wsgate.js";
import { smoke } from "./smoke.js";

onmessage = async ({ data }) => postMessage(await smoke(connect, data));
