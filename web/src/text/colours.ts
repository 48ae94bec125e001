// The languages code is coloured in.
import highlight from "highlight.js/lib/common";

export default highlight;
