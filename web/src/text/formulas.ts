// Formulas, with their fonts.
import katex from "katex";
import "katex/dist/katex.min.css";

const faces = ["KaTeX_Main", "italic 1em KaTeX_Math", "KaTeX_Size1", "KaTeX_Size2"];

/**
 * Loads the fonts of most formulas before the first one is rendered, so that the layout does not
 * shift.
 */
await Promise.all(
  faces.map((face) => document.fonts.load(face.includes(" ") ? face : `1em ${face}`)),
).catch(() => {});

export default katex;
